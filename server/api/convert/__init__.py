"""Protobuf to plain values and back, one module for each subject. No rules, only spelling."""
