"""What convolutional networks see: the package of the course.

The everyday names are here; everything else is in the module of its lecture.
"""

from lecturelib.display import overlay, show
from lecturelib.images import load_image, save_image
from lecturelib.models import load_model
from lecturelib.optimize import maximize, minimize
from lecturelib.scores import channel_score, class_score, layer_score, log_probability, neuron_score, probability

__all__ = [
    "channel_score",
    "class_score",
    "layer_score",
    "load_image",
    "load_model",
    "log_probability",
    "maximize",
    "minimize",
    "neuron_score",
    "overlay",
    "probability",
    "save_image",
    "show",
]
