"""Joint training that keeps one modality from displacing the others. `aids` holds the settings.

`gradient_modulation` and `pareto_gradients` change the encoders' gradients. `gradient_blending` weighs the losses.
`alternation` trains one modality per step. `relearning` resets encoders that overfit.
"""
