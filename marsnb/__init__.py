__version__ = "0.1.0"

import logging, os, platform

# both are read once, when TensorFlow is imported: notebook 00_core says why
if platform.machine() in ('x86_64', 'AMD64'): os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

# each network is compiled for itself: from the fifth on TensorFlow would warn of it
logging.getLogger('tensorflow').addFilter(lambda record: 'retracing' not in str(record.msg))
