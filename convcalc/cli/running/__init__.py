"""What `convcalc run` does: `asked` says for what, `given` on what; `answers`, `batches` and `checks` work it out, and
`output` shows it.
"""
