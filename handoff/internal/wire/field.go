package wire

import (
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// A limit bounds a string or a byte slice, or each string of a list.
type limit struct {
	bytes int
	cut   bool // a longer one is cut when it is sent
}

// limits are those that the structs name behind their tags.
var limits = map[string]limit{
	"name":     {MaxName, false},
	"network":  {MaxNetwork, false},
	"address":  {MaxAddress, false},
	"sockname": {MaxSockname, false},
	"build":    {MaxBuild, true},
	"text":     {MaxText, true},
	"state":    {MaxConnState, false},
	"op":       {MaxOp, false},
	"body":     {MaxBody, false},
}

// A structure is a struct of this package as the codec sees it.
type structure struct {
	of     reflect.Type
	fields []field // in ascending order of their tags
}

// A field is one of a structure, as its struct tag describes it.
type field struct {
	limit
	tag   uint64
	index int
	kind  reflect.Kind
	list  bool       // of strings or structs
	elem  *structure // of a list of structs
}

// structureOf reads the struct tags, `wire:"TAG"` or `wire:"TAG,LIMIT"`.
func structureOf(t reflect.Type) *structure {
	s := &structure{of: t}
	for i := range t.NumField() {
		f := field{index: i, kind: t.Field(i).Type.Kind()}
		number, name, _ := strings.Cut(t.Field(i).Tag.Get("wire"), ",")
		if _, err := fmt.Sscan(number, &f.tag); err != nil {
			panic(fmt.Sprintf("wire: %v.%s: %v", t, t.Field(i).Name, err))
		}
		f.limit = limits[name]
		if ft := t.Field(i).Type; ft.Kind() == reflect.Slice && ft.Elem().Kind() != reflect.Uint8 {
			f.list = true
			if ft.Elem().Kind() == reflect.Struct {
				f.elem = structureOf(ft.Elem())
			}
		}
		s.fields = append(s.fields, f)
	}
	return s
}

// check returns an error if v exceeds a limit.
func (s *structure) check(v reflect.Value) error {
	for i := range s.fields {
		if err := s.fields[i].check(v.Field(s.fields[i].index)); err != nil {
			return err
		}
	}
	return nil
}

func (f *field) check(v reflect.Value) error {
	switch {
	case f.list && v.Len() > MaxEntries:
		return f.tooLarge(v.Len(), MaxEntries)
	case f.list:
		for i := range v.Len() {
			var err error
			if f.elem != nil {
				err = f.elem.check(v.Index(i))
			} else {
				err = f.fits(v.Index(i).Len())
			}
			if err != nil {
				return err
			}
		}
	case f.bytes > 0 && !f.cut:
		return f.fits(v.Len())
	}
	return nil
}

// fits returns an error if n bytes exceed the limit.
func (f *field) fits(n int) error {
	if n > f.bytes {
		return f.tooLarge(n, f.bytes)
	}
	return nil
}

func (f *field) tooLarge(n, limit int) error {
	return fmt.Errorf("%w: field %d has %d, limit %d", ErrTooLarge, f.tag, n, limit)
}

// cutOff returns at most limit bytes of s, and no part of a character.
func cutOff(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := limit
	for n > limit-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
