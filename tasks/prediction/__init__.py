"""Class scores over the time of a recording, alarms, highlights and overlays.

`window_scores` scores recordings and live sources, with a `Scorer` such as `torch_scorer`. `overall` scores a
recording as a whole. `alarm_events`, `highlights`, `timeline` and `video_overlay` use the scores. `prediction_file`
reads stored predictions for the report.

Start with `window_scores`. Import `predict`, `predict_live` and `AlarmWatch`.
"""
