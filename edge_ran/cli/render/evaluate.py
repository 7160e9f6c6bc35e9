"""The text of `edge-ran evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.evaluate import EvalReport


def text(report: EvalReport) -> str:
    low, high = report.top1_interval
    lines = [
        f"{many(report.images, 'image')} ({report.split}), {report.ms_per_image:.2f} ms each on "
        f"{report.accelerator.actual} ({report.runtime})",
        f"top-1  {report.top1:.2%}  (95 %: {low:.2%} to {high:.2%}, {report.interval})",
    ]
    if report.top5 is not None:
        lines.append(f"top-5  {report.top5:.2%}")
    calibration = f"calibration error {report.calibration_error:.3f} at temperature {report.temperature:.2f}"
    lines.append(f"balanced {report.balanced:.2%}, {calibration}")
    if report.agreement is not None:
        lines.append(
            f"agreement with {report.reference}: {report.agreement:.2%}; its top-1 is {report.reference_top1:.2%}"
        )
    if report.drop_points is not None:
        interval = "" if report.drop_interval is None else " (95 %: {:+.2f} to {:+.2f})".format(*report.drop_interval)
        against = report.reference or "the accuracy in its card"
        lines.append(f"drop   {report.drop_points:+.2f} points against {against}{interval}")
    if report.unknown is not None:
        u = report.unknown
        low, high = u.false_alarms_interval
        lines += [
            f"unknown {many(u.images, 'image')}, AUROC {u.auroc:.3f}",
            f"        --threshold {u.threshold:.4f} keeps {u.kept:.1%} of the known (top-1 {u.kept_top1:.2%}) and "
            f"{u.false_alarms:.1%} of the unknown (95 %: {low:.1%} to {high:.1%})",
        ]
    width = max(len(label) for label in report.per_class)
    lines.append(f"{'class':<{width}}  images  recall  precision")
    for label, one in report.per_class.items():
        recall, precision = ("-" if v is None else f"{v:.1%}" for v in (one.recall, one.precision))
        lines.append(f"{label:<{width}}  {one.images:>6,}  {recall:>6}  {precision:>9}")
    return "\n".join([*lines, *(f"! {warning}" for warning in report.warnings)])
