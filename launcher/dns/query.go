// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"errors"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxQuery is how long a question may be; that of a resolver has less than 512 bytes.
	maxQuery = 4096
	// plainUDP is the size of an answer by UDP if the client does not say more (RFC 1035).
	plainUDP = 512
	// mostUDP is the size that reaches everybody without fragments, which can be forged.
	mostUDP = 1232
	// maxTCP is the most that a message can have.
	maxTCP = 65535

	typeIXFR = dnsmessage.Type(251)
	// badVersion is the extended response code of an unknown version of EDNS.
	badVersion = dnsmessage.RCode(16)
)

// query is a question of a client.
type query struct {
	dnsmessage.Header

	question dnsmessage.Question
	// name is that of the question in lower case, without the dot at its end.
	name string
	// edns says that there is an OPT record, dnssec that its DO bit is set.
	edns, dnssec bool
	// size is how long the answer may be.
	size int
}

// parse reads a message of a client. If it is no question that can be answered, q is nil
// and reply says so; a nil reply is no word at all: to answer an answer makes a loop.
func parse(msg []byte, tcp bool) (q *query, reply []byte) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return nil, nil
	}
	q = &query{Header: h, size: plainUDP}
	if h.OpCode != 0 {
		return nil, q.bare(dnsmessage.RCodeNotImplemented)
	}
	if q.question, err = p.Question(); err != nil {
		return nil, q.bare(dnsmessage.RCodeFormatError)
	}
	if err := q.rest(&p); err != nil {
		return nil, q.bare(dnsmessage.RCodeFormatError)
	}
	q.name = fold(q.question.Name)
	if tcp {
		q.size = maxTCP
	}
	return q, nil
}

// fold is a name as it is compared: in lower case, without the dot at its end.
func fold(n dnsmessage.Name) string {
	return strings.ToLower(strings.TrimSuffix(n.String(), "."))
}

var errTwoOPT = errors.New("two OPT records")

// rest reads what follows the question.
func (q *query) rest(p *dnsmessage.Parser) error {
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return errors.New("two questions")
	}
	if err := p.SkipAllAnswers(); err != nil {
		return err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return err
	}
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == dnsmessage.TypeOPT {
			if q.edns {
				return errTwoOPT
			}
			q.edns, q.dnssec = true, h.DNSSECAllowed()
			q.size = min(max(int(h.Class), plainUDP), mostUDP)
			if h.TTL>>16&0xff != 0 {
				q.RCode = badVersion
			}
		}
		if err := p.SkipAdditional(); err != nil {
			return err
		}
	}
}

// bare is a reply of a header alone, to what could not be read.
func (q *query) bare(code dnsmessage.RCode) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: q.ID, Response: true, OpCode: q.OpCode, RecursionDesired: q.RecursionDesired, RecursionAvailable: true, RCode: code})
	msg, err := b.Finish()
	if err != nil {
		return nil
	}
	return msg
}

// fails is a reply without an answer.
func (q *query) fails(code dnsmessage.RCode) []byte { return q.reply(reply{code: code}) }

// ask is the question, as it is put to a server.
func (q *query) ask(id uint16, size int) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 2, plainUDP), dnsmessage.Header{ID: id, RecursionDesired: q.RecursionDesired, CheckingDisabled: q.CheckingDisabled, AuthenticData: q.AuthenticData})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q.question); err != nil {
		return nil, err
	}
	if err := q.addOPT(&b, min(size, mostUDP), 0); err != nil {
		return nil, err
	}
	return b.Finish()
}

// addOPT adds an OPT record if the client sent one: who knows none must get none.
func (q *query) addOPT(b *dnsmessage.Builder, size int, code dnsmessage.RCode) error {
	if !q.edns {
		return nil
	}
	if err := b.StartAdditionals(); err != nil {
		return err
	}
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(size, code, q.dnssec); err != nil {
		return err
	}
	return b.OPTResource(h, dnsmessage.OPTResource{})
}

// answers says whether a message is an answer to this question under an id.
func (q *query) answers(msg []byte, id uint16) (dnsmessage.Header, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id || h.OpCode != 0 {
		return h, false
	}
	got, err := p.Question()
	if err != nil || got.Type != q.question.Type || got.Class != q.question.Class || fold(got.Name) != q.name {
		return h, false
	}
	_, err = p.Question()
	return h, errors.Is(err, dnsmessage.ErrSectionDone)
}
