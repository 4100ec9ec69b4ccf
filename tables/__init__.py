"""Faust, made fast and exact: batch transport, columnar tables, transactional writer, bulk restore."""
