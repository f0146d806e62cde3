"""The meaning of the arguments of pretext tasks and fusions, by argument, or by (owner, argument) where owners
differ.
"""

TASK_ARGUMENTS = {
    "anchor": "Use only pairs with this modality. Null: all pairs.",
    "contrast": "Weight of the contrastive loss; the reconstruction loss has weight 1.",
    "covariance": "Weight of the covariance term.",
    "dimension": "Width of the space in which rows are compared.",
    "directions": "Random directions of the test of normality.",
    "dropout": "Share of features set to 0 before the classifier.",
    "easy_until": "Share of the run with easy negatives only. The share of hard ones then rises over as long again.",
    "epsilon": "Sharpness of the cluster codes: smaller is sharper.",
    "gap": "Smallest gap in seconds between two windows that are compared.",
    "gate": "Weight of the loss that trains the gate to find the corrupted stream. 0: off.",
    "hard": "Largest share of hard negatives: other windows of the same clip.",
    "heads": "Attention heads.",
    "hidden": "Width of the hidden layer of the projection heads.",
    "invariance": "Weight of the agreement term.",
    "joint": "Whether rows of the query's own modality are negatives too.",
    "layers": "Transformer layers of the predictor.",
    "momentum": "Momentum of the slow copy of the heads.",
    "pairs": "Pairs of modalities, such as [[rgb,audio]]. Null: all pairs.",
    "positives": "Most similar rows of the queue that count as positives.",
    "prototypes": "Number of clusters.",
    "redundancy": "Weight of the off-diagonal terms.",
    "reversal": "Role of a reversed segment: distinctive (a negative), invariant (a positive) or ignored.",
    "share": "Share of the tokens that are hidden.",
    "sharpness": "How strongly the severity of a corruption lowers the weight that the gate should give.",
    "shift": "Role of another segment of the clip: distinctive (a negative), invariant (a positive) or ignored.",
    "size": "Number of rows in the queue.",
    "sketch": "Weight of the test of normality.",
    "streams": "Features to use, by modality. Null: every modality.",
    "temperature": "Temperature of the softmax: smaller is sharper.",
    "variance": "Weight of the variance term.",
    "warmup": "Share of the run before similar clips count as positives.",
}
_ORDER = ("clip_order", "order_verification", "frame_order", "odd_one_out")
_TO_FUSED = ("cross_modal", "vicreg", "barlow_twins", "crisscross", "lejepa", "swapped_assignments")
TASK_ARGUMENTS_OF = {
    **{(task, "streams"): "Features to use: modalities, or `fused` for the fused embedding." for task in _ORDER},
    **{(task, "hidden"): "Width of the hidden layer over each pair of segments." for task in _ORDER},
    **{
        (task, "pairs"): "Pairs of modalities, or of a modality and `fused`. Null: all pairs of modalities."
        for task in _TO_FUSED
    },
    ("arrow_of_time", "streams"): "Features to use: modalities, or `fused`. Null: every modality.",
    ("pace", "streams"): "Video modalities to use. Null: all except flow.",
    ("byol", "hidden"): "Width of the hidden layer of the predictors.",
    ("gate_denoising", "hidden"): "Width of the hidden layer of the predictor.",
}
FUSION_ARGUMENTS = {
    "balance": "Weight of the auxiliary loss against a gate that always prefers one modality. 0: off.",
    "bottlenecks": "Learned tokens through which modalities exchange information.",
    "by_class": "Whether each modality also has a weight per class. Not with `mixture`.",
    "depth": "Number of layers.",
    "dropout": "Share of hidden units set to 0 in training.",
    "expansion": "Width of the feed-forward layers, as a multiple of `model.width`.",
    "free": "Experts that see all modalities, in addition to one per modality.",
    "heads": "Attention heads.",
    "hidden": "Width of the hidden layer.",
    "inner": "Channels to which each modality is reduced before the product.",
    "k": "Experts used for each sample.",
    "members": "Number of gate networks, whose weights are averaged.",
    "mixture": "Whether weights average the probabilities. False: they are exponents of a product.",
    "prior": "Frequencies of the classes. Null: all equal.",
    "quality": "Number of quality measures per stream as input: noise, contrast, repetition, in this order. 0: none.",
    "rank": "Rank of the weight tensor.",
    "ratio": "Factor by which the joint hidden layer is narrower than the features.",
    "scale": "Whether the gate may also lower all weights together.",
    "seed": "Seed of the random sketch.",
    "sketch": "Channels of the sketch.",
    "supervision": "Factor of the loss by which each weight predicts the probability that its expert gives the true "
    "class. 0: off.",
    "temperature": "Temperature of the softmax over gate scores: smaller is sharper.",
}
FUSION_ARGUMENTS_OF = {
    ("topk", "balance"): "Weight of the auxiliary loss that spreads samples over the free experts. 0: off.",
}
