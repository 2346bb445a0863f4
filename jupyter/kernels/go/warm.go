// Compiled once by `lab install`, so that the packages which lessons use are in the build cache.
package main

import (
	_ "bufio"
	_ "crypto/aes"
	_ "crypto/cipher"
	_ "crypto/ecdh"
	_ "crypto/ed25519"
	_ "crypto/hkdf"
	_ "crypto/hpke"
	_ "crypto/rand"
	_ "crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "encoding/json"
	_ "fmt"
	_ "math/big"
	_ "net/http"
	_ "sort"
	_ "strings"
)

func main() {}
