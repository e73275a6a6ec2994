// Ratios copies the output of go test -bench from its standard input to its
// standard output, fit for benchstat, and prints a table below it: each figure of
// Baton's beside what the kernel, or the plain way to do the same, took in the
// same run, and the ratio of the two.
//
//	go test -run='^$' -bench=. -count=6 ./... | tee new.txt | ratios
//
// Of several rounds the median counts. It fails if the tests do, or if there is
// no figure at all.
package main
