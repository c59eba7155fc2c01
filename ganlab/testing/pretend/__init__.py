"""The pretend device: a device of torch without a GPU, to test on any machine what runs on a GPU.

`install()` makes it known to torch; then `--device pretend` and `torch.device("pretend")` work in this process. Its
data lie on the CPU and its values are the CPU's, so a training on it has the same bits. What a GPU would refuse or wait
for is found: tensors, indices and generators of the wrong device are errors at the line, and values that are read back
and copies between devices are recorded (`record_events`).

It sees no kernels and no streams: memory, speed, determinism and allocation in a captured step need a GPU. It uses a
private interface of torch, and is tested with torch 2.14.
"""

from ganlab.testing.pretend.backend import install as install
from ganlab.testing.pretend.backend import why_missing as why_missing
from ganlab.testing.pretend.events import Event as Event
from ganlab.testing.pretend.events import describe_steps as describe_steps
from ganlab.testing.pretend.events import record_events as record_events
from ganlab.testing.pretend.tensor import DeviceMismatch as DeviceMismatch
