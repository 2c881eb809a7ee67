"""The convolution of a train step on CPU: the sums of `lax.conv_general_dilated` in a fast order.

XLA:CPU has one fast convolution: channels last, without groups, the image larger than the kernel.
What is not of this form is a plain loop, up to a hundred times slower: depthwise kernels, images of a
few pixels, gradients with a stride, and any gradient inside `lax.scan`, which XLA does not rewrite
there. `convolve` writes all of them as convolutions of that form, products or sums, by the shapes:

    shape                                forward             gradients, of image and kernel
    a kernel of one pixel                XLA's               products
    a stride as large as the kernel      product             products
    an image smaller than the kernel     patches, product    products and sums
    one group a channel                  shifted sums        shifted sums
    up to 3x3 of 3 channels, no stride   patches, product    as the next
    any other without groups             XLA's               XLA's fast form, by phase; transposed
    any other with groups                XLA's               XLA's

`tests/benchmarks/convolution.py` measures each rule against what it replaces.
"""

from kdjax.models.convolution.choice import convolve, with_fast_convolutions

__all__ = ["convolve", "with_fast_convolutions"]
