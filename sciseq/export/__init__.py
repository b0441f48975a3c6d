"""Files that forecast without sciseq: fitted forecasters as ONNX."""

from sciseq.export.onnx_files import export_onnx

__all__ = ["export_onnx"]
