package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
)

const headersMax = 1024

var (
	p = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	// The y of all points of small order.
	small = []*big.Int{big.NewInt(0), big.NewInt(1), new(big.Int).Sub(p, big.NewInt(1)),
		littleHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
		littleHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")}
)

func littleHex(digits string) *big.Int {
	data, _ := hex.DecodeString(digits)
	return little(data)
}

func little(data []byte) *big.Int {
	reversed := slices.Clone(data)
	slices.Reverse(reversed)
	return new(big.Int).SetBytes(reversed)
}

func goodPoint(point []byte) bool {
	y := little(point)
	y.SetBit(y, 255, 0)
	return y.Cmp(p) < 0 && !slices.ContainsFunc(small, func(each *big.Int) bool { return each.Cmp(y) == 0 })
}

// strict is the rule of validator keys: the library checks the equation, S < L and R's form; canonical and not small comes first.
func strict(key, message, signature []byte) bool {
	return len(key) == 32 && len(signature) == 64 && goodPoint(key) && goodPoint(signature[:32]) && ed25519.Verify(key, message, signature)
}

func (s Statement) wellFormed() bool {
	aboutNothing := s.ParentView == 0 && bytes.Equal(s.Digest, make([]byte, 32))
	return s.View >= 1 && s.ParentView < s.View && (s.Kind != Nullify || aboutNothing)
}

func checkSubject(chain []byte, record Record, s Statement) error {
	if !bytes.Equal(s.Chain, chain) || s.Epoch != record.Epoch {
		return errors.New("another chain or epoch")
	}
	if s.Kind == Propose || !s.wellFormed() {
		return errors.New("no statement that can be voted for")
	}
	return nil
}

func checkVote(chain []byte, record Record, vote Vote) error {
	if err := checkSubject(chain, record, vote.Statement); err != nil {
		return err
	}
	if !slices.ContainsFunc(record.Validators, func(v Validator) bool { return bytes.Equal(v.Key, vote.Key) }) {
		return errors.New("no validator")
	}
	if !strict(vote.Key, vote.Statement.signingBytes(), vote.Signature) {
		return errors.New("the signature")
	}
	return nil
}

func checkCertificate(chain []byte, record Record, c Certificate) error {
	if c.Scheme != 0 {
		return errors.New("an unknown scheme")
	}
	if err := checkSubject(chain, record, c.Statement); err != nil {
		return err
	}
	seats, err := signers(record, c)
	if err != nil {
		return err
	}
	message := c.Statement.signingBytes()
	for n, seat := range seats {
		if !strict(record.Validators[seat].Key, message, c.Signatures[n]) {
			return errors.New("a signature")
		}
	}
	return nil
}

// signers gives the seats of a certificate that fits the record and has a quorum.
func signers(record Record, c Certificate) ([]int, error) {
	if len(c.Bitmap) != (len(record.Validators)+7)/8 {
		return nil, errors.New("the bitmap's length")
	}
	var seats []int
	for i := range 8 * len(c.Bitmap) {
		if c.Bitmap[i/8]>>(i%8)&1 == 1 {
			seats = append(seats, i)
		}
	}
	if len(seats) > 0 && seats[len(seats)-1] >= len(record.Validators) {
		return nil, errors.New("a bit beyond the set")
	}
	if len(seats) != len(c.Signatures) {
		return nil, errors.New("the number of signatures")
	}
	signed, total := new(big.Int), new(big.Int)
	for seat, v := range record.Validators {
		weight := new(big.Int).SetUint64(v.Weight)
		total.Add(total, weight)
		if slices.Contains(seats, seat) {
			signed.Add(signed, weight)
		}
	}
	if signed.Mul(signed, big.NewInt(3)).Cmp(total.Mul(total, big.NewInt(2))) <= 0 {
		return nil, errors.New("no quorum")
	}
	return seats, nil
}

// contradicts tells what no honest key signs both of: two of a kind, or nullify and finalize, in one view.
func (s Statement) contradicts(other Statement) bool {
	sameView := bytes.Equal(s.Chain, other.Chain) && s.Epoch == other.Epoch && s.View == other.View
	ends := s.Kind == Nullify && other.Kind == Finalize || s.Kind == Finalize && other.Kind == Nullify
	return sameView && !bytes.Equal(s.bytes(), other.bytes()) && (s.Kind == other.Kind || ends)
}

func checkEvidence(e Evidence) error {
	if !e.First.Statement.contradicts(e.Second.Statement) {
		return errors.New("no contradiction")
	}
	for _, each := range []Signed{e.First, e.Second} {
		if !strict(e.Key, each.Statement.signingBytes(), each.Signature) {
			return errors.New("a signature")
		}
	}
	return nil
}

func checkFinality(chain []byte, record Record, proof Proof) error {
	if len(proof.Headers) < 1 || len(proof.Headers) > headersMax {
		return errors.New("the number of headers")
	}
	for i, h := range proof.Headers {
		if !bytes.Equal(h.Chain, chain) || h.Epoch != record.Epoch {
			return errors.New("a header of another chain or epoch")
		}
		if i > 0 && (!bytes.Equal(h.Parent, proof.Headers[i-1].hash()) || h.Height != proof.Headers[i-1].Height+1) {
			return errors.New("a broken run")
		}
	}
	s := proof.Certificate.Statement
	if s.Kind != Finalize || !bytes.Equal(s.Digest, proof.Headers[len(proof.Headers)-1].hash()) {
		return errors.New("a certificate of something else")
	}
	return checkCertificate(chain, record, proof.Certificate)
}

func checkBlock(chain []byte, record Record, b Block) error {
	h := b.Header
	if !bytes.Equal(record.hash(), h.EpochHash) {
		return errors.New("another record")
	}
	if h.Height < record.FirstHeight || h.Height-record.FirstHeight >= record.Length {
		return errors.New("another epoch's height")
	}
	if err := checkFinality(chain, record, b.Finality); err != nil {
		return err
	}
	if !bytes.Equal(b.Finality.Headers[0].hash(), h.hash()) {
		return errors.New("a proof of another block")
	}
	if !bytes.Equal(b.bodyRoot(), h.BodyRoot) {
		return errors.New("another body")
	}
	return nil
}

// follow gives the chain id, the records known in the end, and the last block's hash.
func follow(genesis Genesis, blocks []Block) (chain []byte, records []Record, tip []byte, err error) {
	chain, records = genesis.chainID(), genesis.Epochs
	tip = chain
	var named []byte
	for _, block := range blocks {
		h := block.Header
		if !bytes.Equal(h.Parent, tip) {
			return chain, records, tip, errors.New("not the next block")
		}
		if h.Epoch == uint64(len(records)) {
			if !bytes.Equal(h.EpochHash, named) {
				return chain, records, tip, errors.New("a record that no final header named")
			}
			records = append(records, block.Epoch)
		}
		if h.Epoch >= uint64(len(records)) {
			return chain, records, tip, errors.New("an unknown epoch")
		}
		if err = checkBlock(chain, records[h.Epoch], block); err != nil {
			return chain, records, tip, err
		}
		tip, named = h.hash(), h.NextEpochHash
	}
	return chain, records, tip, nil
}
