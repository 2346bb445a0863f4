package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
)

// Bytes is what JSON writes as lower-case hex.
type Bytes []byte

// UnmarshalJSON reads hex.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	var digits string
	if err := json.Unmarshal(text, &digits); err != nil {
		return err
	}
	data, err := hex.DecodeString(digits)
	*b = data
	return err
}

// Kind is what a statement says; its name in JSON, its index on the wire.
type Kind byte

// The kinds, in the order of their tags.
const (
	Propose Kind = iota
	Notarize
	Nullify
	Finalize
)

// UnmarshalJSON reads a kind's name.
func (k *Kind) UnmarshalJSON(text []byte) error {
	at := slices.Index([]string{`"propose"`, `"notarize"`, `"nullify"`, `"finalize"`}, string(text))
	if at < 0 {
		return fmt.Errorf("no kind: %s", text)
	}
	*k = Kind(at)
	return nil
}

// Header is a block's; its hash is the block's.
type Header struct {
	Version       uint32
	Chain         Bytes
	Epoch, Height uint64
	Parent        Bytes
	Time          uint64
	Proposer      Bytes
	BodyRoot      Bytes `json:"body_root"`
	Executed      uint64
	StateRoot     Bytes `json:"state_root"`
	ReceiptsRoot  Bytes `json:"receipts_root"`
	EpochHash     Bytes `json:"epoch_hash"`
	NextEpochHash Bytes `json:"next_epoch_hash"`
}

// Statement is what validators say about a view.
type Statement struct {
	Chain       Bytes
	Epoch, View uint64
	Kind        Kind
	ParentView  uint64 `json:"parent_view"`
	Digest      Bytes
}

// Vote is a statement with one validator's signature.
type Vote struct {
	Statement      Statement
	Key, Signature Bytes
}

// Certificate is the signatures of many under one statement.
type Certificate struct {
	Scheme     uint8
	Statement  Statement
	Bitmap     Bytes
	Signatures []Bytes
}

// Signed is one half of evidence: in JSON an array of the two.
type Signed struct {
	Statement Statement
	Signature Bytes
}

// UnmarshalJSON reads the array.
func (s *Signed) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&s.Statement, &s.Signature})
}

// Evidence is two statements that no honest key signs both of.
type Evidence struct {
	Key           Bytes
	First, Second Signed
}

// Validator is a key with its weight; its seat is its place in the record.
type Validator struct {
	Key    Bytes
	Weight uint64
}

// Record is an epoch's.
type Record struct {
	Epoch       uint64
	FirstHeight uint64 `json:"first_height"`
	Length      uint64
	Version     uint32
	Params      struct {
		LagMax               uint64 `json:"lag_max"`
		BatchLife            uint64 `json:"batch_life"`
		BatchBytesMax        uint32 `json:"batch_bytes_max"`
		BatchTransactionsMax uint32 `json:"batch_transactions_max"`
		BlockBatchesMax      uint32 `json:"block_batches_max"`
		TransactionBytesMax  uint32 `json:"transaction_bytes_max"`
		TransactionLifeMax   uint64 `json:"transaction_life_max"`
		MemoBytesMax         uint32 `json:"memo_bytes_max"`
		ClockDriftMs         uint64 `json:"clock_drift_ms"`
		FeeBase              uint64 `json:"fee_base"`
		FeePerByte           uint64 `json:"fee_per_byte"`
		AccountCreationFee   uint64 `json:"account_creation_fee"`
	}
	Validators []Validator
}

// Proof shows that its first header's block is final.
type Proof struct {
	Headers     []Header
	Certificate Certificate
}

// Block with what is needed to check it.
type Block struct {
	Header Header
	Body   struct {
		Batches            []Bytes
		ParentNotarization *Certificate `json:"parent_notarization"`
	}
	Finality Proof
	Epoch    Record
}

// Account is an address with its balance at genesis: in JSON an array of the two.
type Account struct {
	Address Bytes
	Amount  uint64
}

// UnmarshalJSON reads the array.
func (a *Account) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&a.Address, &a.Amount})
}

// Genesis is the record whose hash is the chain id.
type Genesis struct {
	Time     uint64
	Accounts []Account
	Epochs   []Record
}

func u32(n uint32) []byte         { return binary.LittleEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte         { return binary.LittleEndian.AppendUint64(nil, n) }
func blob(data []byte) []byte     { return join(u32(uint32(len(data))), data) }
func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
func sha(parts ...[]byte) []byte  { sum := sha256.Sum256(join(parts...)); return sum[:] }

func tagged(tag string, data []byte) []byte { return sha([]byte("ebpf-blockchain/"+tag+"/1\x00"), data) }

func (h Header) hash() []byte {
	return tagged("block", join(u32(h.Version), h.Chain, u64(h.Epoch), u64(h.Height), h.Parent, u64(h.Time), h.Proposer, h.BodyRoot,
		u64(h.Executed), h.StateRoot, h.ReceiptsRoot, h.EpochHash, h.NextEpochHash))
}

func (s Statement) bytes() []byte {
	return join(s.Chain, u64(s.Epoch), u64(s.View), []byte{byte(s.Kind)}, u64(s.ParentView), s.Digest)
}

func (s Statement) signingBytes() []byte {
	return join([]byte("ebpf-blockchain/statement/1\x00"), s.bytes())
}

func (c Certificate) hash() []byte {
	out := join([]byte{c.Scheme}, c.Statement.bytes(), blob(c.Bitmap), u32(uint32(len(c.Signatures))))
	for _, each := range c.Signatures {
		out = append(out, each...)
	}
	return tagged("certificate", out)
}

func (r Record) bytes() []byte {
	q := r.Params
	out := join(u64(r.Epoch), u64(r.FirstHeight), u64(r.Length), u32(r.Version), u64(q.LagMax), u64(q.BatchLife), u32(q.BatchBytesMax),
		u32(q.BatchTransactionsMax), u32(q.BlockBatchesMax), u32(q.TransactionBytesMax), u64(q.TransactionLifeMax), u32(q.MemoBytesMax),
		u64(q.ClockDriftMs), u64(q.FeeBase), u64(q.FeePerByte), u64(q.AccountCreationFee), u32(uint32(len(r.Validators))))
	for _, v := range r.Validators {
		out = join(out, v.Key, u64(v.Weight))
	}
	return out
}

func (r Record) hash() []byte { return tagged("epoch", r.bytes()) }

func (g Genesis) chainID() []byte {
	out := join(u64(g.Time), u32(uint32(len(g.Accounts))))
	for _, each := range g.Accounts {
		out = join(out, each.Address, u64(each.Amount))
	}
	for _, each := range g.Epochs {
		out = join(out, each.bytes())
	}
	return tagged("genesis", out)
}

func merkle(leaves [][]byte) []byte {
	switch len(leaves) {
	case 0:
		return sha()
	case 1:
		return leaves[0]
	}
	split := 1 << (bits.Len(uint(len(leaves)-1)) - 1)
	return sha([]byte{1}, merkle(leaves[:split]), merkle(leaves[split:]))
}

func (b Block) bodyRoot() []byte {
	var leaves [][]byte
	for _, batch := range b.Body.Batches {
		leaves = append(leaves, sha([]byte{0, 0}, batch))
	}
	if c := b.Body.ParentNotarization; c != nil {
		leaves = append(leaves, sha([]byte{0, 1}, c.hash()))
	}
	return merkle(leaves)
}
