from .config.load import load_config as load_config
from .training.loop import train as train
