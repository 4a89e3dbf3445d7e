"""The network: HTTP with retries, proxies and redaction."""
