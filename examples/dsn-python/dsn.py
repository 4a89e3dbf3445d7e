"""Prints the parts of a PostgreSQL connection string, as libpq understands them."""

import sys

import psycopg2
from psycopg2.extensions import libpq_version, parse_dsn


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: dsn postgresql://USER@HOST/DATABASE", file=sys.stderr)
        return 2
    try:
        parts = parse_dsn(sys.argv[1])
    except psycopg2.ProgrammingError as error:
        print(f"dsn: {str(error).strip()}", file=sys.stderr)
        return 1
    for name in sorted(parts):
        print(f"{name}: {parts[name]}")
    print(f"libpq: {libpq_version() // 10000}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
