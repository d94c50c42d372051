"""A reference runner of exported networks: numpy, nibabel and onnxruntime, nothing of medseg.

`medseg bundle export` writes its modules as one file, `run.py`.
"""
