"""Analyses: a `Network` goes in, a frozen `Report` comes out."""
