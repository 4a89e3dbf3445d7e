// A calculator for the command line: calculator NUMBER OPERATOR NUMBER.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func calculate(left float64, operator string, right float64) (float64, error) {
	switch operator {
	case "+":
		return left + right, nil
	case "-":
		return left - right, nil
	case "*":
		return left * right, nil
	case "/":
		if right == 0 {
			return 0, fmt.Errorf("division by zero")
		}
		return left / right, nil
	}
	return 0, fmt.Errorf("unknown operator %q", operator)
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: calculator NUMBER OPERATOR NUMBER")
		os.Exit(2)
	}
	left, errLeft := strconv.ParseFloat(os.Args[1], 64)
	right, errRight := strconv.ParseFloat(os.Args[3], 64)
	if errLeft != nil || errRight != nil {
		fmt.Fprintln(os.Stderr, "calculator: not a number")
		os.Exit(1)
	}
	result, err := calculate(left, os.Args[2], right)
	if err != nil {
		fmt.Fprintln(os.Stderr, "calculator:", err)
		os.Exit(1)
	}
	fmt.Println(strconv.FormatFloat(result, 'g', -1, 64))
}
