"""A calculator for the command line: python calculator.py EXPRESSION."""

import sys

from simpleeval import InvalidExpression, simple_eval


def main() -> int:
    expression = " ".join(sys.argv[1:])
    if not expression:
        print("usage: calculator EXPRESSION", file=sys.stderr)
        return 2
    try:
        print(simple_eval(expression))
    except (InvalidExpression, SyntaxError, ArithmeticError) as error:
        print(f"calculator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
