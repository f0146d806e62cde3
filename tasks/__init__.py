"""What pretrained encoders are used for: evaluation, prediction and the report.

Features are extracted once from frozen encoders (`features`). Probes score them (`probes`), and fine-tuning trains a
classifier on top (`finetuning`). `metrics`, `splits` and `evaluation` define how clips are divided and scored.
`robustness`, `fusion_study` and `prediction` apply trained models. `report` draws the results as HTML.

Start with `records`: every evaluation is stored as a `Result`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
