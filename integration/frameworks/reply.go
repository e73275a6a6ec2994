package main

import (
	"io"
	"net/http"
)

// reply answers a request of HTTP.
func reply(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, answer(body)) // the client has gone, or not
}
