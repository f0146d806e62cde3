"""The division of clips into training, validation and test.

`splits` defines a `Split` and the basic ways to divide an index. `split_plan` turns the user's settings into splits.
`leak_check` warns about near-duplicate clips on both sides of a split.

Start with `splits`. Import `SplitPlan`, `plan_splits` and `hold_out`.
"""
