"""Fast twins of the objectives and views: same names, same signatures, same numbers, less memory.

tiled.py       any device, plain torch: never holds more than a strip of the similarity matrix
scaling.py     any device, plain torch: Sinkhorn by two vectors instead of a matrix
views.py       NVIDIA GPUs, Triton: from stored pixels to a finished view in one to three launches
similarity.py  NVIDIA GPUs, Triton: never holds more than a tile of it, in registers
covariance.py  any device, plain torch: the cheaper side of a covariance matrix, gradients in closed form
distillation.py, distillation_gpu.py
               plain torch and Triton: teachers summed first, each logit read once forward and once backward
sigreg.py      any device, Triton on NVIDIA GPUs: one cosine and sine a sample and slice, then products

The public functions in sslcore.objectives choose between the plain form and a twin by device and size; each twin's
page says when it is chosen and where it loses. A twin has no second derivative, and asking for one is an error
(derivative.py). Triton is not imported before it is needed, and every file imports without it (optional_triton.py).
"""
