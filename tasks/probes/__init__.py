"""Probes of frozen features: linear classifiers, nearest neighbours, retrieval, and few labels.

`probe_features` and `multilabel_probe` score all features of an encoder. `linear_probe`, `sgd_probe`, `knn` and
`retrieval` are the methods they use. `label_curve` and `retrieval_rows` apply these to splits. `online_probe` scores
an encoder during pretraining. `probe_tables` builds the tables of the record.

Start with `probe_features`. Import `probe_features`, `probe_multilabel` and `fit_linear_probe`.
"""
