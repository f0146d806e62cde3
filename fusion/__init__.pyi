from .bundle.bundle import load_bundle as load_bundle
from .bundle.embedder import load_encoder as load_encoder
