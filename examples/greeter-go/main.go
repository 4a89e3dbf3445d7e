// Greets the user it runs as, by the name that the C library or, without it, Go itself finds.
package main

import (
	"fmt"
	"os/user"
	"time"
)

func main() {
	who, err := user.Current()
	if err != nil {
		panic(err)
	}
	place, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).In(place)
	fmt.Printf("Hello from %s (%s), %s, by %s\n", who.Username, who.Uid, noon.Format("15:04 MST"), origin())
}
