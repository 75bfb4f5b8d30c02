"""jobs.py, at its smallest, on a GPU that is made of fibers."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(os.environ["WEFT_BIN"])


class Jobs(unittest.TestCase):
    def test_all_of_them_pass(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)  # ranks run as another user
            for each in ("bin", "lib"):
                (folder / each).mkdir()
            for program in ("weft", "weft-coordinator", "weft-agent", "weft-worker"):
                shutil.copy(BIN / program, folder / "bin")
            shutil.copy(BIN / "weft-worker-cuda-on-cpu", folder / "bin/weft-worker-cuda")
            shutil.copy(os.environ["WEFT_STAND_IN_NVML"], folder / "lib/libnvidia-ml.so.1")
            (folder / "lib/gpus").write_text(f"0 {80 << 30} 0\n")
            environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
            environment.update(WEFT_BIN=str(folder / "bin"), LD_LIBRARY_PATH=str(folder / "lib"))
            done = subprocess.run([sys.executable, HERE / "jobs.py", "--small", "--seconds", "800", folder / "results"],
                                  env=environment, capture_output=True, text=True, timeout=850)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn(" passed, 0 failed", done.stdout)


if __name__ == "__main__":
    unittest.main()
