// Command client is a verifier of the chain after docs/spec/wire.md, independent of the node's code.
//
//	client votes  votes.json    a line `kind TAB name TAB verdict` for each entry
//	client proofs refused.json  the same for proofs of finality, by the records of chain.json beside it
//	client follow chain.json    follows all blocks from the genesis record: chain id, records, blocks, tip
//
// It exits with 1 and `refused: why` if the chain does not hold.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

type chainFile struct {
	Genesis struct{ Record Genesis }
	Epochs  []struct{ Record Record }
	Blocks  []Block
}

type votesFile struct {
	Chain   Bytes
	Records []Record
	Votes   []struct {
		Name   string
		Record int
		Vote   Vote
	}
	Certificates []struct {
		Name        string
		Record      int
		Certificate Certificate
	}
	Evidence []struct {
		Name     string
		Evidence Evidence
	}
}

func load(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func say(kind, name string, err error) { fmt.Printf("%s\t%s\t%t\n", kind, name, err == nil) }

func votes(path string) error {
	var file votesFile
	if err := load(path, &file); err != nil {
		return err
	}
	for _, each := range file.Votes {
		say("vote", each.Name, checkVote(file.Chain, file.Records[each.Record], each.Vote))
	}
	for _, each := range file.Certificates {
		say("certificate", each.Name, checkCertificate(file.Chain, file.Records[each.Record], each.Certificate))
	}
	for _, each := range file.Evidence {
		say("evidence", each.Name, checkEvidence(each.Evidence))
	}
	return nil
}

func proofs(path string) error {
	var golden chainFile
	var file struct {
		Finality []struct {
			Name  string
			Proof Proof
		}
	}
	if err := errors.Join(load(filepath.Join(filepath.Dir(path), "chain.json"), &golden), load(path, &file)); err != nil {
		return err
	}
	for _, each := range file.Finality {
		epoch := uint64(0)
		if len(each.Proof.Headers) > 0 {
			epoch = each.Proof.Headers[0].Epoch
		}
		say("finality", each.Name, checkFinality(golden.Genesis.Record.chainID(), golden.Epochs[epoch].Record, each.Proof))
	}
	return nil
}

func followFile(path string) error {
	var golden chainFile
	if err := load(path, &golden); err != nil {
		return err
	}
	chain, records, tip, err := follow(golden.Genesis.Record, golden.Blocks)
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Printf("%x %d %d %x\n", chain, len(records), len(golden.Blocks), tip)
	return nil
}

func main() {
	commands := map[string]func(string) error{"votes": votes, "proofs": proofs, "follow": followFile}
	if len(os.Args) != 3 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: client votes|proofs|follow FILE")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
