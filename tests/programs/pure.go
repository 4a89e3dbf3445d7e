// What a program of Go asks of `static`: certificates, time zones, accounts, and a handshake with itself.
package main

import (
	"crypto/x509"
	"fmt"
	"os/user"
	"runtime"
	"time"
)

func main() {
	pool, err := x509.SystemCertPool()
	if err != nil {
		panic(err)
	}
	fmt.Println("trusted", len(pool.Subjects()) > 100)
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	fmt.Println("zone", time.Unix(0, 0).In(zone).Format("15:04 MST"))
	who, err := user.Current()
	if err != nil {
		panic(err)
	}
	fmt.Println("user", who.Username, who.HomeDir)
	sums := make(chan int)
	for n := 0; n < 4; n++ {
		go func(n int) { sums <- n * n }(n)
	}
	total := 0
	for n := 0; n < 4; n++ {
		total += <-sums
	}
	fmt.Println("sum", total, runtime.GOOS)
}
