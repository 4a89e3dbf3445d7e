//go:build cgo

package main

// #include <gnu/libc-version.h>
import "C"

func origin() string { return "glibc " + C.GoString(C.gnu_get_libc_version()) }
