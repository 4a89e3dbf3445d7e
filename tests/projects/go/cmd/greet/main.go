// Greet greets whom it is told to, in several languages.
package main

import (
	"fmt"
	"os"

	"example.org/greet/internal/words"
)

var version = "unknown"

func main() {
	fmt.Printf("%s (greet %s)\n", words.Greeting(os.Getenv("LANGUAGE"), os.Args[1]), version)
}
