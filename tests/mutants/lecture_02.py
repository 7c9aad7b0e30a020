import torch

from mutants.bank import right, wrong


@right("capture")
def by_walking(network, name, x):
    for child, layer in network.named_children():
        x = layer(x.clone())
        if child == name:
            return x.clone()


@right("capture")
def by_a_shorter_network(network, name, x):
    names = [child for child, _ in network.named_children()]
    return network[: names.index(name) + 1](x)


@wrong("capture", "overwritten")
def kept_without_a_clone(network, name, x):
    found = {}
    handle = getattr(network, name).register_forward_hook(lambda m, i, o: found.update(out=o))
    network(x)
    handle.remove()
    return found["out"]


@wrong("capture", "hooks behind")
def hook_left(network, name, x):
    found = {}
    getattr(network, name).register_forward_hook(lambda m, i, o: found.update(out=o.clone()))
    network(x)
    return found["out"]


@wrong("capture", "no history")
def detached(network, name, x):
    found = {}
    handle = getattr(network, name).register_forward_hook(lambda m, i, o: found.update(out=o.detach().clone()))
    network(x)
    handle.remove()
    return found["out"]


@wrong("capture", "goes into the layer")
def input_for_output(network, name, x):
    found = {}
    handle = getattr(network, name).register_forward_hook(lambda m, i, o: found.update(out=i[0].clone()))
    network(x)
    handle.remove()
    return found["out"]


@right("receptive_field")
def from_the_back(layers):
    size, stride = 1, 1
    for kernel, step in reversed(layers):
        size = (size - 1) * step + kernel
        stride = stride * step
    return torch.tensor([size, stride])


@right("receptive_field")
def by_products(layers):
    strides = [1]
    for _, step in layers:
        strides.append(strides[-1] * step)
    return [1 + sum((k - 1) * s for (k, _), s in zip(layers, strides)), strides[-1]]


@wrong("receptive_field", "own stride")
def own_stride_too_early(layers):
    size, stride = 1, 1
    for kernel, step in layers:
        stride *= step
        size += (kernel - 1) * stride
    return size, stride


@wrong("receptive_field", "k - 1")
def kernel_not_minus_one(layers):
    size, stride = 1, 1
    for kernel, step in layers:
        size += kernel * stride
        stride *= step
    return size, stride


@wrong("receptive_field", "earlier layers")
def strides_forgotten(layers):
    stride = 1
    for _, step in layers:
        stride *= step
    return 1 + sum(k - 1 for k, _ in layers), stride


@wrong("receptive_field", "Strides multiply")
def strides_added(layers):
    size, stride = 1, 1
    for kernel, step in layers:
        size += (kernel - 1) * stride
        stride *= step
    return size, sum(step for _, step in layers)


@right("dead_channels")
def nothing_positive(activation):
    return ~(activation > 0).any(dim=3).any(dim=2).any(dim=0)


@right("dead_channels")
def sum_is_zero(activation):
    return [activation[:, c].sum().item() == 0 for c in range(activation.shape[1])]


@wrong("dead_channels", "one of the images")
def dead_in_any_image(activation):
    return (activation.flatten(2).amax(2) == 0).any(dim=0)


@wrong("dead_channels", "somewhere")
def zero_somewhere(activation):
    return activation.amin(dim=(0, 2, 3)) == 0


@wrong("dead_channels", "each image and channel")
def one_answer_per_image(activation):
    return activation.amax(dim=(2, 3)) == 0


@wrong("dead_channels", "exchanged")
def alive_ones(activation):
    return activation.amax(dim=(0, 2, 3)) > 0


@wrong("dead_channels", "numbers of the dead")
def their_numbers(activation):
    return (activation.amax(dim=(0, 2, 3)) == 0).nonzero().flatten()


@right("selectivity")
def class_by_class(codes, labels):
    out = []
    for c in range(codes.shape[1]):
        means = [codes[labels == k, c].mean().item() for k in sorted(set(labels.tolist()))]
        m = max(means)
        means.remove(m)
        r = sum(means) / len(means)
        out.append(0.0 if m + r == 0 else (m - r) / (m + r))
    return out


@right("selectivity")
def by_one_hot(codes, labels):
    member = torch.nn.functional.one_hot(labels).float()
    means = (member.T @ codes) / member.sum(0)[:, None]
    m = means.max(0).values
    r = (means.sum(0) - m) / (means.shape[0] - 1)
    return torch.nan_to_num((m - r) / (m + r))


@wrong("selectivity", "nan")
def nan_for_dead_channels(codes, labels):
    means = torch.stack([codes[labels == k].mean(0) for k in labels.unique()])
    m = means.max(0).values
    r = (means.sum(0) - m) / (len(means) - 1)
    return (m - r) / (m + r)


@wrong("selectivity", "all classes")
def rest_with_the_best(codes, labels):
    means = torch.stack([codes[labels == k].mean(0) for k in labels.unique()])
    m, r = means.max(0).values, means.mean(0)
    return (m - r) / (m + r + 1e-12)


@wrong("selectivity", "all other images")
def mean_over_other_images(codes, labels):
    means = torch.stack([codes[labels == k].mean(0) for k in range(4)])
    best = means.argmax(0)
    r = torch.stack([codes[labels != best[c], c].mean() for c in range(codes.shape[1])])
    m = means.max(0).values
    return (m - r) / (m + r + 1e-12)


@wrong("selectivity", "Divide by m + r")
def difference_only(codes, labels):
    means = torch.stack([codes[labels == k].mean(0) for k in labels.unique()])
    m = means.max(0).values
    return m - (means.sum(0) - m) / (len(means) - 1)


@wrong("selectivity", "second best")
def second_best(codes, labels):
    means = torch.stack([codes[labels == k].mean(0) for k in labels.unique()])
    top = means.topk(2, dim=0).values
    return (top[0] - top[1]) / (top[0] + top[1] + 1e-12)


@wrong("capture", "setting of a layer")
def switches_in_place_off(network, name, x):
    for layer in network:
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = False
    for known, layer in network.named_children():
        x = layer(x)
        if known == name:
            return x


@wrong("receptive_field", "size comes first")
def stride_before_size(layers):
    size, stride = 1, 1
    for kernel, step in layers:
        size, stride = size + (kernel - 1) * stride, stride * step
    return stride, size


@wrong("selectivity", "divided by K")
def rest_over_all_classes(codes, labels):
    means = torch.stack([codes[labels == label].mean(0) for label in labels.unique()])
    best = means.max(0).values
    rest = (means.sum(0) - best) / len(means)
    return torch.nan_to_num((best - rest) / (best + rest))
