package terminal

import (
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	columns, _ := size(f)
	return columns > 0
}

// Quote returns text with each character that does not print as itself, such as the
// begin of an escape sequence or a line break, in the form of a Go literal.
func Quote(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(text[0]), 16))
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		text = text[n:]
	}
	return b.String()
}

// QuoteAll has Quote applied to each string that v, a pointer, leads to.
func QuoteAll(v any) { quoteAll(reflect.ValueOf(v)) }

func quoteAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			quoteAll(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				quoteAll(v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			quoteAll(v.Index(i))
		}
	case reflect.String:
		if v.CanSet() {
			v.SetString(Quote(v.String()))
		}
	}
}
