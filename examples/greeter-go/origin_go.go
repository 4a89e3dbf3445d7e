//go:build !cgo

package main

func origin() string { return "Go alone" }
