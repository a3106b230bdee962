"""Benchmarks: ratios measured in one run, A B A B; never a test.  See docs/performance.md; ``make bench`` runs them."""
