package reuseport_test

var helpers = map[string]func(args []string){}
