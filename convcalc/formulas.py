"""Every formula of convcalc, once.

A formula is a small function without branches, in plain arithmetic on whatever number flows through it: Python ints
(exact, however large), NumPy integer arrays (a design space at once), or `Traced` numbers, which remember how they were
made. `--explain` and the formula reference in the docs run these same functions on traced numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from convcalc.tracing import (
    absolute,
    ceil_div,
    common_divisor,
    erf,
    exp,
    expm1,
    floor,
    formula,
    log1p,
    maximum,
    minimum,
    product,
    square_root,
    summation,
    tanh,
    where,
)

# --- windows: sizes -------------------------------------------------------------------------------------------------


@formula("extent", "Dumoulin and Visin, A guide to convolution arithmetic for deep learning, section 5.1")
def kernel_extent(kernel_size: int, dilation: int) -> int:
    """The elements that a kernel spans, holes included.

    >>> kernel_extent(3, 2)
    5
    """
    return dilation * (kernel_size - 1) + 1


@formula("output", "PyTorch, Conv2d, Shape")
def window_count(size: int, kernel_size: int, stride: int, before: int, after: int, dilation: int) -> int:
    """How many windows fit: the output size of convolution and of pooling that rounds down.

    >>> window_count(224, 7, 2, 3, 3, 1)
    112
    """
    return (size + before + after - dilation * (kernel_size - 1) - 1) // stride + 1


@formula("output", "PyTorch, MaxPool2d, Shape and the note on ceil_mode")
def window_count_ceil(size: int, kernel_size: int, stride: int, before: int, after: int, dilation: int) -> int:
    """How many windows start inside the input or the left padding, when the last may stick out.

    >>> window_count_ceil(10, 1, 2, 0, 0, 1), window_count_ceil(9, 4, 4, 2, 2, 1)
    (5, 3)
    """
    return minimum(
        ceil_div(size + before + after - dilation * (kernel_size - 1) - 1, stride) + 1,
        ceil_div(size + before, stride),
    )


@formula("unread", "what the floor of window_count drops")
def unread(size: int, kernel_size: int, stride: int, before: int, after: int, dilation: int) -> int:
    """The elements at the far end of the padded input that no window reaches.

    >>> unread(224, 7, 2, 3, 3, 1)
    1
    """
    return (size + before + after - dilation * (kernel_size - 1) - 1) % stride


@formula("output", "PyTorch, ConvTranspose2d, Shape")
def transposed_size(
    size: int, kernel_size: int, stride: int, before: int, after: int, dilation: int, output_padding: int
) -> int:
    """The output size of a transposed convolution.

    >>> transposed_size(8, 3, 2, 1, 1, 1, 1)
    16
    """
    return (size - 1) * stride - before - after + dilation * (kernel_size - 1) + output_padding + 1


@formula("padding", "PyTorch, Conv2d, padding='same'")
def same_padding(kernel_size: int, dilation: int) -> int:
    """The padding in all that keeps the size at stride 1.

    >>> same_padding(4, 1)
    3
    """
    return dilation * (kernel_size - 1)


@formula("padding", "ONNX, Conv, auto_pad SAME_UPPER and SAME_LOWER")
def same_padding_strided(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """The padding in all that makes the output ⌈size / stride⌉.

    >>> same_padding_strided(224, 7, 2, 1), same_padding_strided(10, 1, 2, 1)
    (5, 0)
    """
    return maximum((ceil_div(size, stride) - 1) * stride + dilation * (kernel_size - 1) + 1 - size, 0)


# --- windows: costs -------------------------------------------------------------------------------------------------


@formula("weights", "PyTorch, Conv2d, Variables")
def conv_weights(out_channels: int, in_channels: int, groups: int, kernel_size: Sequence[int]) -> int:
    """The weights of a convolution, and of a transposed one.

    >>> conv_weights(64, 3, 1, (7, 7))
    9408
    """
    return out_channels * (in_channels // groups) * product(kernel_size)


@formula("MACs", "one dot product of in_channels/groups·∏kernel_size terms per output element")
def conv_macs(batch: int, out_channels: int, output: Sequence[int], in_channels: int, groups: int,
              kernel_size: Sequence[int]) -> int:  # fmt: skip
    """The multiply-accumulates of a convolution. Padding zeros are operands like others.

    >>> conv_macs(1, 64, (112, 112), 3, 1, (7, 7))
    118013952
    """
    return batch * out_channels * product(output) * (in_channels // groups) * product(kernel_size)


@formula("MACs", "each input element meets every kernel element once")
def transposed_macs(batch: int, in_channels: int, size: Sequence[int], out_channels: int, groups: int,
                    kernel_size: Sequence[int]) -> int:  # fmt: skip
    """The multiply-accumulates of a transposed convolution, products that padding crops included.

    >>> transposed_macs(1, 8, (8, 8), 4, 1, (3, 3))
    18432
    """
    return batch * in_channels * product(size) * (out_channels // groups) * product(kernel_size)


@formula("reached", "counts the distinct values of i·stride + j·dilation")
def reached(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """How many positions `size` windows of a strided, dilated kernel touch in all.

    Two products meet where i·stride + j·dilation agree, which is dilation/gcd windows and stride/gcd taps apart.

    >>> reached(8, 3, 2, 1), reached(3, 2, 3, 1)
    (17, 6)
    """
    shared = common_divisor(stride, dilation)
    return size * kernel_size - maximum(size - dilation // shared, 0) * maximum(kernel_size - stride // shared, 0)


@formula("additions", "a dot product of K terms has K − 1 additions")
def sum_additions(products: int, sums: int) -> int:
    """The additions that bring so many products together into so many sums.

    >>> sum_additions(27, 1)
    26
    """
    return products - sums


@formula("additions", "one for each output element")
def biased_additions(additions: int, outputs: int) -> int:
    """The additions, those of the bias among them.

    >>> biased_additions(26, 1)
    27
    """
    return additions + outputs


@formula("FLOPs", "every operation counts once")
def operations(multiplications: int, additions: int, other: int) -> int:
    """All floating-point operations; comparisons, divisions and function calls are the others.

    >>> operations(27, 27, 0)
    54
    """
    return multiplications + additions + other


@formula("parameters", "each element is one")
def parameter_elements(shape: Sequence[int]) -> int:
    """How many parameters a weight or a bias of this shape is.

    >>> parameter_elements((6, 1, 5, 5))
    150
    """
    return product(shape)


@formula("MACs", "Golub and Van Loan, Matrix Computations, 3.2: the sum of k² for k below n")
def elimination_macs(size: int) -> int:
    """The multiply-accumulates of Gaussian elimination of a square matrix.

    >>> elimination_macs(2), elimination_macs(3)
    (1, 5)
    """
    return (size - 1) * size * (2 * size - 1) // 6


@formula("MACs", "PyTorch, Linear")
def linear_macs(rows: int, in_features: int, out_features: int) -> int:
    """The multiply-accumulates of a linear layer on so many rows.

    >>> linear_macs(10, 16, 10)
    1600
    """
    return rows * in_features * out_features


# --- receptive field ------------------------------------------------------------------------------------------------


@formula("receptive field", "Araujo et al., Computing receptive fields of convolutional neural networks, 2019")
def receptive_field(field: int, jump: int, kernel_size: int, dilation: int) -> int:
    """The input elements that one output element sees, from those one sees before this layer.

    `jump` is the distance at the input between neighbours before this layer.

    >>> receptive_field(3, 1, 3, 1), receptive_field(7, 2, 3, 2)
    (5, 15)
    """
    return field + dilation * (kernel_size - 1) * jump


@formula("overlap", "tiles that begin one period apart; each reads `extent` elements for its outputs of one period")
def tile_overlap(extent: int, period: int) -> int:
    """The elements that neighbouring tiles of an input must share to give all outputs, none of them twice.

    >>> tile_overlap(7, 2), tile_overlap(2, 2), tile_overlap(1, 2)
    (5, 0, 0)
    """
    return maximum(extent - period, 0)


# --- composition ----------------------------------------------------------------------------------------------------


@formula("stride", "a step of the second layer is stride steps of the first")
def composed_stride(jump: int, stride: int) -> int:
    """The distance at the input between neighbours after a layer, from the one before it.

    >>> composed_stride(2, 3)
    6
    """
    return jump * stride


@formula("padding", "a padded place of the second layer stands for jump places of the first")
def composed_padding(padding: int, jump: int, next_padding: int) -> int:
    """The padding of two layers as one, on one side.

    >>> composed_padding(1, 2, 3)
    7
    """
    return padding + jump * next_padding


@formula("extent", "neighbours in the second layer's kernel stand dilation·jump elements apart")
def composed_extent(extent: int, kernel_size: int, jump: int, dilation: int) -> int:
    """The elements that the kernel of two layers as one spans, after a first one of `extent`.

    >>> composed_extent(3, 3, 1, 1), composed_extent(3, 3, 2, 1)
    (5, 7)
    """
    return extent + (kernel_size - 1) * dilation * jump


@formula("kernel_size", "kernel_extent, solved for the kernel")
def composed_kernel_size(extent: int, dilation: int) -> int:
    """The elements of a kernel of this extent that stand dilation apart.

    >>> composed_kernel_size(5, 1), composed_kernel_size(9, 2)
    (5, 5)
    """
    return (extent - 1) // dilation + 1


@formula("sum", "the layers one after the other")
def layers_together(counts: Sequence[int]) -> int:
    """The weights, or the MACs, of several layers.

    >>> layers_together((576, 8, 576))
    1160
    """
    return summation(counts)


@formula("error", "the Frobenius norm of what is missing, as a part of the kernel's")
def relative_error(distance: float, norm: float) -> float:
    """How far a split kernel is from the one that was split: ‖W − W'‖ / ‖W‖.

    >>> relative_error(1.0, 4.0)
    0.25
    """
    return distance / norm


@formula("saved %", "the definition")
def saved_percent(whole: int, now: int) -> float:
    """What a split saves, in percent; negative where it costs more.

    >>> saved_percent(100, 75)
    25.0
    """
    return 100 * (1 - now / whole)


@formula("extent", "stride − 1 zeros stand between the outputs of the first before the second spreads them")
def composed_transposed_extent(extent: int, kernel_size: int, stride: int, dilation: int) -> int:
    """The elements that a transposed convolution spreads one element over, after one of `extent`.

    >>> composed_transposed_extent(4, 4, 2, 1)
    10
    """
    return (extent - 1) * stride + dilation * (kernel_size - 1) + 1


@formula("padding", "window_count, solved for the padding after")
def needed_padding(output: int, size: int, kernel_size: int, stride: int, before: int, dilation: int) -> int:
    """The padding after that so many windows need; ceil_mode makes windows that need more than there is.

    >>> needed_padding(5, 10, 3, 2, 0, 1)
    1
    """
    return (output - 1) * stride + dilation * (kernel_size - 1) + 1 - size - before


@formula("border", "the windows that start fewer than padding + border elements from the end")
def border_after(border: int, padding: int, stride: int) -> int:
    """How many outputs at one end read padding of this layer, or one of the `border` outputs before it, at most.

    >>> border_after(0, 1, 1), border_after(3, 1, 2)
    (1, 2)
    """
    return ceil_div(border + padding, stride)


@formula("scale", "PyTorch, BatchNorm2d, at inference")
def norm_scale(weight: float, variance: float, eps: float) -> float:
    """What batch norm multiplies a channel by, once it learns no more.

    >>> norm_scale(3.0, 4.0, 0.0)
    1.5
    """
    return weight / square_root(variance + eps)


@formula("shift", "PyTorch, BatchNorm2d, at inference")
def norm_shift(bias: float, mean: float, scale: float) -> float:
    """What batch norm adds to a channel, once it learns no more.

    >>> norm_shift(1.0, 5.0, 2.0)
    -9.0
    """
    return bias - mean * scale


# --- pooling --------------------------------------------------------------------------------------------------------


@formula("operations", "a window of K elements is joined by K − 1 comparisons or additions")
def window_comparisons(elements: int, kernel_size: Sequence[int]) -> int:
    """What joins the elements of so many windows into one number each.

    >>> window_comparisons(4, (2, 2))
    12
    """
    return elements * (product(kernel_size) - 1)


@formula("elements", "PyTorch, AdaptiveAvgPool2d: window i is ⌊i·n/m⌋ to ⌈(i + 1)·n/m⌉")
def adaptive_elements(size: int, output: int) -> int:
    """The elements in all adaptive windows along an axis.

    Windows cover the axis, and neighbours share one element except at the gcd − 1 inner borders where both divide.

    >>> adaptive_elements(8, 3), adaptive_elements(8, 4)
    (10, 8)
    """
    return size + output - common_divisor(size, output)


@formula("output", "PyTorch, MaxUnpool2d, Shape")
def unpooled_size(size: int, kernel_size: int, stride: int, before: int, after: int) -> int:
    """The output size of max unpooling.

    >>> unpooled_size(4, 2, 2, 0, 0)
    8
    """
    return (size - 1) * stride - before - after + kernel_size


@formula("output", "PyTorch, Upsample, Shape")
def scaled_size(size: int, scale_factor: float) -> int:
    """The output size of upsampling by a factor.

    >>> scaled_size(5, 2), scaled_size(5, 1.5)
    (10, 7)
    """
    return floor(size * scale_factor)


@formula("output", "PyTorch, ZeroPad2d, Shape")
def padded_size(size: int, before: int, after: int) -> int:
    """The size after padding; negative padding crops.

    >>> padded_size(8, 1, 2)
    11
    """
    return size + before + after


# --- norms and softmax ----------------------------------------------------------------------------------------------


@formula("additions", "mean, variance and root, each element's distance from the mean taken once")
def norm_additions(elements: int, groups: int) -> int:
    """The additions of normalising so many groups: n − 1 for the mean, n for the distances, n − 1 for their squares,
    1 for eps.

    >>> norm_additions(8, 1)
    23
    """
    return 3 * elements - groups


@formula("additions", "the gradient of a normalisation: inv·(g − mean(g) − x̂·mean(g·x̂))")
def norm_backward_additions(elements: int, groups: int) -> int:
    """The additions of the input's gradient: two sums of n − 1, x̂ once more, and two differences.

    >>> norm_backward_additions(8, 1)
    38
    """
    return 5 * elements - 2 * groups


@formula("additions", "exp(x − max) / Σ exp(x − max)")
def softmax_additions(elements: int, slices: int) -> int:
    """The additions of softmax over so many slices: n to take the maximum off, n − 1 for the sum.

    >>> softmax_additions(10, 1)
    19
    """
    return 2 * elements - slices


@formula("operations", "exp(x − max) / Σ exp(x − max)")
def softmax_others(elements: int, slices: int) -> int:
    """The other operations of softmax: n − 1 comparisons for the maximum, n exponentials, n divisions.

    >>> softmax_others(10, 1)
    29
    """
    return 3 * elements - slices


# --- activations ----------------------------------------------------------------------------------------------------
# Their cost is read off these: each operation and function call is 1, signs are free, and every branch is taken.


@formula("output", "PyTorch, ReLU")
def relu(x: float) -> float:
    """ReLU.

    >>> relu(-1.5), relu(2.0)
    (0, 2.0)
    """
    return maximum(x, 0)


@formula("output", "PyTorch, ReLU6")
def relu6(x: float) -> float:
    """ReLU6.

    >>> relu6(8.0)
    6
    """
    return minimum(maximum(x, 0), 6)


@formula("output", "PyTorch, LeakyReLU")
def leaky_relu(x: float, slope: float) -> float:
    """LeakyReLU; PReLU's too, and RReLU's at inference with the middle of its slopes.

    >>> leaky_relu(-2.0, 0.25)
    -0.5
    """
    return where(x > 0, x, slope * x)


@formula("output", "PyTorch, Threshold")
def threshold(x: float, threshold: float, value: float) -> float:
    """Threshold.

    >>> threshold(0.5, 1.0, 20.0)
    20.0
    """
    return where(x <= threshold, value, x)


@formula("output", "PyTorch, Hardtanh")
def hardtanh(x: float, low: float, high: float) -> float:
    """Hardtanh.

    >>> hardtanh(-3.0, -1.0, 1.0)
    -1.0
    """
    return minimum(maximum(x, low), high)


@formula("output", "PyTorch, Hardsigmoid")
def hardsigmoid(x: float) -> float:
    """Hardsigmoid.

    >>> hardsigmoid(0.0)
    0.5
    """
    return minimum(maximum(x + 3, 0), 6) / 6


@formula("output", "PyTorch, Hardswish")
def hardswish(x: float) -> float:
    """Hardswish.

    >>> hardswish(3.0)
    3.0
    """
    return x * minimum(maximum(x + 3, 0), 6) / 6


@formula("output", "PyTorch, Hardshrink")
def hardshrink(x: float, lambd: float) -> float:
    """Hardshrink.

    >>> hardshrink(0.25, 0.5), hardshrink(-1.0, 0.5)
    (0, -1.0)
    """
    return where(absolute(x) <= lambd, 0, x)


@formula("output", "PyTorch, Softshrink")
def softshrink(x: float, lambd: float) -> float:
    """Softshrink.

    >>> softshrink(1.5, 0.5), softshrink(-1.5, 0.5)
    (1.0, -1.0)
    """
    return maximum(x - lambd, 0) + minimum(x + lambd, 0)


@formula("output", "PyTorch, ELU")
def elu(x: float, alpha: float) -> float:
    """ELU.

    >>> elu(1.0, 1.0), round(elu(-1.0, 1.0), 4)
    (1.0, -0.6321)
    """
    return where(x > 0, x, alpha * expm1(x))


@formula("output", "PyTorch, SELU")
def selu(x: float) -> float:
    """SELU.

    >>> round(selu(1.0), 4)
    1.0507
    """
    return 1.0507009873554805 * where(x > 0, x, 1.6732632423543772 * expm1(x))


@formula("output", "PyTorch, CELU")
def celu(x: float, alpha: float) -> float:
    """CELU.

    >>> round(celu(-1.0, 2.0), 4)
    -0.7869
    """
    return maximum(x, 0) + minimum(alpha * expm1(x / alpha), 0)


@formula("output", "PyTorch, Sigmoid")
def sigmoid(x: float) -> float:
    """Sigmoid.

    >>> sigmoid(0.0)
    0.5
    """
    return 1 / (1 + exp(-x))


@formula("output", "PyTorch, LogSigmoid")
def log_sigmoid(x: float) -> float:
    """LogSigmoid; without overflow.

    >>> round(log_sigmoid(0.0), 4), log_sigmoid(-1000.0)
    (-0.6931, -1000.0)
    """
    return minimum(x, 0) - log1p(exp(-absolute(x)))


@formula("output", "PyTorch, SiLU")
def silu(x: float) -> float:
    """SiLU.

    >>> silu(0.0)
    0.0
    """
    return x / (1 + exp(-x))


@formula("output", "PyTorch, Mish")
def mish(x: float) -> float:
    """Mish.

    >>> round(mish(1.0), 4)
    0.8651
    """
    return x * tanh(log1p(exp(x)))


@formula("output", "PyTorch, Softplus")
def softplus(x: float, beta: float, threshold: float) -> float:
    """Softplus.

    >>> round(softplus(0.0, 1.0, 20.0), 4), softplus(30.0, 1.0, 20.0)
    (0.6931, 30.0)
    """
    return where(beta * x > threshold, x, log1p(exp(beta * x)) / beta)


@formula("output", "the definition")
def scaled(x: float, factor: float) -> float:
    """A constant scale.

    >>> scaled(3.0, 0.5)
    1.5
    """
    return x * factor


@formula("output", "the definition")
def shifted(x: float, amount: float) -> float:
    """A constant shift.

    >>> shifted(3.0, -0.5)
    2.5
    """
    return x + amount


@formula("output", "PyTorch, Softsign")
def softsign(x: float) -> float:
    """Softsign.

    >>> softsign(-1.0)
    -0.5
    """
    return x / (1 + absolute(x))


@formula("output", "PyTorch, Tanh")
def hyperbolic_tangent(x: float) -> float:
    """Tanh.

    >>> hyperbolic_tangent(0.0)
    0.0
    """
    return tanh(x)


@formula("output", "PyTorch, Tanhshrink")
def tanhshrink(x: float) -> float:
    """Tanhshrink.

    >>> tanhshrink(0.0)
    0.0
    """
    return x - tanh(x)


@formula("output", "PyTorch, GELU")
def gelu(x: float) -> float:
    """GELU; 0.707... is √½.

    >>> round(gelu(1.0), 4)
    0.8413
    """
    return 0.5 * x * (1 + erf(0.7071067811865476 * x))


@formula("output", "PyTorch, GELU, approximate='tanh'")
def gelu_tanh(x: float) -> float:
    """GELU; 0.797... is √(2/π).

    >>> round(gelu_tanh(1.0), 4)
    0.8412
    """
    return 0.5 * x * (1 + tanh(0.7978845608028654 * x * (1 + 0.044715 * x * x)))


@formula("output", "PyTorch, GLU")
def glu(x: float, gate: float) -> float:
    """GLU; x and gate are the halves.

    >>> glu(2.0, 0.0)
    1.0
    """
    return x / (1 + exp(-gate))
