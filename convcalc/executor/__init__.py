"""The executor: layers on real arrays, with NumPy."""

from convcalc.executor.processor import keep_freed_memory, use_wide_matmul

use_wide_matmul()  # before any module of the executor loads NumPy
keep_freed_memory()
