#!/usr/bin/env python3
"""Each rule of tidy.py fails on a file that breaks it, and only on that."""
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import tidy  # noqa: E402


class TidyTest(unittest.TestCase):
    def findings(self, name, text):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
            return list(tidy.findings(root))

    def expect(self, rule, name, text):
        found = self.findings(name, text)
        self.assertEqual(len(found), 1, found)
        self.assertIn(f": {rule}: ", found[0])

    def test_good_file(self):
        text = '#pragma once\n#include "proto/base/check.h"\nint f() {\n  return 1;\n}\n'
        self.assertEqual(self.findings("kernels/tensor/a.h", text), [])

    def test_arrow_running_back(self):
        self.expect("arrow", "kernels/tensor/a.h", '#include "worker/parallel/mesh.h"\n')
        self.expect("arrow", "proto/base/a.h", '#include "kernels/tensor/shape.h"\n')

    def test_library_outside_its_folder(self):
        self.expect("library", "worker/a.cc", "#include <rocksdb/db.h>\n")
        self.expect("library", "cluster/comm/threads/a.cc", "#include <mpi.h>\n")
        self.assertEqual(self.findings("cluster/comm/mpi/a.cc", "#include <mpi.h>\n"), [])

    def test_long_line(self):
        self.expect("size", "worker/a.cc", "// " + "x" * 98 + "\n")

    def test_long_file(self):
        self.expect("size", "worker/a.cc", "int x;\n" * 601)

    def test_long_function(self):
        body = "  int a = 0;\n" * 70
        self.expect("size", "worker/a.cc", "namespace b {\nvoid f(int x) {\n" + body + "}\n}\n")
        self.assertEqual(
            self.findings("worker/a.cc", "struct A {\n" + "  int f(int a);\n" * 90 + "};\n"), [])

    def test_marker(self):
        self.expect("marker", "worker/a.cc", "// TO" + "DO: later\n")


if __name__ == "__main__":
    unittest.main()
