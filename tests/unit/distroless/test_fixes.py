"""Numbers of vulnerabilities in changelogs."""

from __future__ import annotations

import pytest

from aerogel.distroless.fixes import named_fixes

TEXT = """\
openssl (3.5.4-1~deb13u1) trixie-security; urgency=medium

  * Import 3.5.4
    - CVE-2025-9230 (Out-of-bounds read & write in RFC 3211 KEK Unwrap)
    - CVE-2025-9231 and CVE-2025-9230 again, cve-2025-1 and CVE-20250-1111 are no numbers

 -- A Person <a@example.org>  Tue, 30 Sep 2025 21:17:13 +0200

openssl (3.5.1-1+b1) sid; urgency=low, binary-only=yes

  * Binary-only non-maintainer upload, CVE-2025-10000

openssl (3.5.1-1) unstable; urgency=medium

  * CVE-2024-0002 in 3.5.1; openssl (3.9) is named in text
  * CVE-2024-12797
"""


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("3.5.1-1", "3.5.4-1~deb13u1", ("CVE-2025-9230", "CVE-2025-9231", "CVE-2025-10000")),
        ("3.5.1-1+b1", "3.5.4-1~deb13u1", ("CVE-2025-9230", "CVE-2025-9231")),
        ("3.4.0-2", "3.5.1-1", ("CVE-2024-0002", "CVE-2024-12797")),
        ("3.5.4-1~deb13u1", "3.5.4-1", ()),
    ],
)
def test_between_two_versions(before: str, after: str, expected: tuple[str, ...]):
    assert named_fixes(TEXT, before, after) == expected
