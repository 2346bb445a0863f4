// Package gonbui shows rich output in a notebook. Its functions are those of GoNB's package of the same name, so that a
// notebook runs under either kernel. Outside a notebook they do nothing.
package gonbui

import (
	"encoding/json"
	"os"
	"strconv"
	"sync"
)

var (
	// IsNotebook says whether a kernel listens.
	IsNotebook bool

	pipe *os.File
	lock sync.Mutex
)

func init() {
	if fd, err := strconv.Atoi(os.Getenv("LAB_DISPLAY_FD")); err == nil {
		pipe = os.NewFile(uintptr(fd), "display")
		IsNotebook = pipe != nil
	}
}

func display(mime, data string) {
	if !IsNotebook {
		return
	}
	lock.Lock()
	defer lock.Unlock()
	// An encoder ends each value with a line break, which is the frame.
	if err := json.NewEncoder(pipe).Encode(map[string]string{mime: data}); err != nil {
		os.Stderr.WriteString("gonbui: " + err.Error() + "\n")
	}
}

// DisplayHTML shows HTML.
func DisplayHTML(html string) { display("text/html", html) }

// DisplayMarkdown shows Markdown.
func DisplayMarkdown(markdown string) { display("text/markdown", markdown) }

// DisplaySVG shows an SVG image.
func DisplaySVG(svg string) { display("image/svg+xml", svg) }
