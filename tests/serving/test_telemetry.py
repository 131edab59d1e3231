"""Ray's metrics: whatever a model is called, it can be counted."""

from vlm_rm_sweeps.serving.telemetry import ClientMetrics, ConnectorMetrics, PoolMetrics, ServerMetrics, TrialMetrics


def test_a_model_id_may_have_any_letters() -> None:
    ServerMetrics("ViT-B-32//home/jörg/my weights.pt").restarted()
    ClientMetrics("ViT-B-32//home/jörg/my weights.pt").sent_again()
    PoolMetrics("ViT-B-32//home/jörg/my weights.pt").running(1)
    TrialMetrics("a-0", "ViT-B-32//home/jörg/my weights.pt, alpha 0.5").sampled(1)
    ConnectorMetrics("ViT-B-32//home/jörg/my weights.pt").sampled(1, 0.1, 0.1)
