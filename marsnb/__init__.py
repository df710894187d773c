__version__ = "0.1.0"

import logging, os, platform, zlib
from pathlib import Path

# all are read once, when TensorFlow or JAX is imported: notebook 00_core says why
if platform.machine() in ('x86_64', 'AMD64'): os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

def _programs():
    "Where JAX keeps what it has compiled: in the user's cache, a folder for each kind of processor, because one may not run the programs of another."
    info = Path('/proc/cpuinfo')
    flags = next((line for line in info.read_text().splitlines() if line.startswith('flags')), '') if info.exists() else ''
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return str(Path(cache)/'marsnb'/f'jax-{platform.machine()}-{zlib.crc32(flags.encode()):08x}')

if 'JAX_COMPILATION_CACHE_DIR' not in os.environ: os.environ['JAX_COMPILATION_CACHE_DIR'] = _programs()

# each network is compiled for itself: from the fifth on TensorFlow would warn of it
logging.getLogger('tensorflow').addFilter(lambda record: 'retracing' not in str(record.msg))
