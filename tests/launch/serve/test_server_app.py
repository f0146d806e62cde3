"""The application without recordings: model, health, description and errors."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.launch.serve.server_app import content_policy, open_service
from modalgate.shards.errors import RequestError

from ..given.served import Served


def test_model_endpoint_has_the_limits(server: Served) -> None:
    facts = server.ask("GET", "/model").json
    assert (facts["name"], facts["task"], facts["licence"]) == ("hall", "action", "MIT")
    assert facts["modalities"] == ["rgb", "audio", "inertial"]
    assert facts["roles"] == [
        {"name": "video", "kind": "video"},
        {"name": "audio", "kind": "audio"},
        {"name": "inertial", "kind": "signal"},
    ]
    assert (facts["window_seconds"], facts["hop_seconds"], facts["max_mb"]) == (0.4, 0.2, 1)
    assert (facts["views"], facts["piece_seconds"], facts["whole_seconds"]) == (3, 0.4, 0)
    assert facts["classes"][:2] == ["calm", "fight"]
    assert facts["metrics"] == {"accuracy (9 clips)": 0.5}
    assert "consent" in facts["intended_use"]
    assert "must not decide alone" in facts["limits"]
    assert "##" not in facts["limits"]
    assert len(set(facts["colours"]["modalities"].values())) == 3


def test_health_reports_free_places(server: Served) -> None:
    expected = {"status": "ok", "predicting": False, "waiting": 0, "free": 1}
    assert server.ask("GET", "/health").json == expected


def test_the_description_needs_no_network(server: Served) -> None:
    assert server.ask("GET", "/docs").status == 404
    described = server.ask("GET", "/openapi.json").json
    assert set(described["paths"]) == {"/", "/health", "/model", "/predict"}
    post = described["paths"]["/predict"]["post"]
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {"video", "audio", "inertial"}
    assert {"200", "400", "413", "422", "503"} <= set(post["responses"])


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/../etc/passwd", 404), ("GET", "/predict", 405)])
def test_unknown_path_is_one_line(method: str, path: str, status: int, server: Served) -> None:
    answer = server.ask(method, path)
    assert answer.status == status
    assert answer.json["error"].startswith(f"{method} {path}")


def test_page_runs_only_its_own_script(server: Served) -> None:
    answer = server.ask("GET", "/")
    page = answer.body.decode()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    policy = answer.headers["Content-Security-Policy"]
    assert policy == content_policy(page)
    (script,) = re.findall("<script>(.*?)</script>", page, re.S)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_a_sensor_alone_needs_no_video(tiny_backbone: object, tiny_clip: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = Classifier(tiny_backbone(("inertial",)), ["sit", "fall"]).eval()  # pyright: ignore
    save_bundle(Bundle(classifier, tiny_clip, 1, "action"), tmp_path / "band")  # pyright: ignore
    service = open_service(tmp_path / "band", tmp_path, max_mb=1, queue=0, log=print)
    assert [role.name for role in service.facts.roles] == ["inertial"]
    service.turns.close()


def test_flow_requires_its_video(tiny_backbone: object, tiny_clip: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = Classifier(tiny_backbone(("depth_flow", "flow")), ["sit", "fall"]).eval()  # pyright: ignore
    save_bundle(Bundle(classifier, tiny_clip, 1, "action"), tmp_path / "room")  # pyright: ignore
    service = open_service(tmp_path / "room", tmp_path, max_mb=1, queue=0, log=print)
    assert [(role.name, role.kind) for role in service.facts.roles] == [("video", "video"), ("depth", "video")]
    service.turns.close()


def test_encoder_without_classes_is_rejected(action_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(action_bundle)
    save_bundle(Bundle(bundle.backbone, bundle.spec, 3), tmp_path / "encoder")
    with pytest.raises(RequestError, match="encoder without classes"):
        open_service(tmp_path / "encoder", tmp_path, max_mb=1, queue=0, log=print)
