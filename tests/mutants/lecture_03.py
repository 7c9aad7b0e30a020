import torch
import torch.nn.functional as F

from mutants.bank import right, wrong


@right("occlude")
def by_a_mask(image, top, left, size, fill):
    rows, columns = torch.arange(image.shape[2])[:, None], torch.arange(image.shape[3])
    inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
    return torch.where(inside, torch.tensor(fill), image)


@right("occlude")
def pixel_by_pixel(image, top, left, size, fill):
    out = image.clone()
    for i in range(top, top + size):
        for j in range(left, left + size):
            if 0 <= i < image.shape[2] and 0 <= j < image.shape[3]:
                out[:, :, i, j] = fill
    return out


@wrong("occlude", "in place")
def covers_the_picture_itself(image, top, left, size, fill):
    image[:, :, max(top, 0) : top + size, max(left, 0) : left + size] = fill
    return image


@wrong("occlude", "exchanged")
def top_and_left_exchanged(image, top, left, size, fill):
    out = image.clone()
    out[:, :, max(left, 0) : left + size, max(top, 0) : top + size] = fill
    return out


@wrong("occlude", "negative start")
def negative_start(image, top, left, size, fill):
    out = image.clone()
    out[:, :, top : top + size, left : left + size] = fill
    return out


@wrong("occlude", "first color")
def one_color_only(image, top, left, size, fill):
    out = image.clone()
    out[:, 0, max(top, 0) : top + size, max(left, 0) : left + size] = fill
    return out


@wrong("occlude", "one pixel too large")
def one_pixel_too_large(image, top, left, size, fill):
    out = image.clone()
    out[:, :, max(top, 0) : top + size + 1, max(left, 0) : left + size + 1] = fill
    return out


@wrong("occlude", "filled with 0")
def always_black(image, top, left, size, fill):
    out = image.clone()
    out[:, :, max(top, 0) : top + size, max(left, 0) : left + size] = 0
    return out


def _windows(x, size, stride):
    h, w = (x.shape[2] - size) // stride + 1, (x.shape[3] - size) // stride + 1
    return [(i, j, i * stride, j * stride) for i in range(h) for j in range(w)], h, w


def _map(x, size, stride, fill, read, fresh=True):
    places, h, w = _windows(x, size, stride)
    out, z = torch.zeros(h, w), x.clone()
    with torch.no_grad():
        for i, j, top, left in places:
            z = x.clone() if fresh else z
            z[:, :, top : top + size, left : left + size] = fill
            out[i, j] = read(z)
    return out


@right("occlusion_map")
def in_one_batch(model, x, y, size, stride, fill):
    places, h, w = _windows(x, size, stride)
    batch = x.repeat(len(places), 1, 1, 1)
    for z, (_, _, top, left) in zip(batch, places):
        z[:, top : top + size, left : left + size] = fill
    with torch.no_grad():
        return (model(x)[0, y] - model(batch)[:, y]).reshape(h, w)


@right("occlusion_map")
def by_unfold(model, x, y, size, stride, fill):
    ones = torch.ones(1, 1, *x.shape[2:])
    n = F.unfold(ones, size, stride=stride).shape[2]
    columns = torch.zeros(n, size * size, n)
    columns[range(n), :, range(n)] = 1
    masks = F.fold(columns, x.shape[2:], size, stride=stride)
    drop = model(x)[:, y] - model(x * (1 - masks) + fill * masks)[:, y]
    return drop.detach().reshape((x.shape[2] - size) // stride + 1, -1)


@wrong("occlusion_map", "sign")
def negative_drop(model, x, y, size, stride, fill):
    base = model(x)[0, y]
    return _map(x, size, stride, fill, lambda z: model(z)[0, y] - base)


@wrong("occlusion_map", "score under the cover")
def score_for_drop(model, x, y, size, stride, fill):
    return _map(x, size, stride, fill, lambda z: model(z)[0, y])


@wrong("occlusion_map", "probability")
def drop_of_the_probability(model, x, y, size, stride, fill):
    base = model(x).softmax(1)[0, y]
    return _map(x, size, stride, fill, lambda z: base - model(z).softmax(1)[0, y])


@wrong("occlusion_map", "more and more")
def never_restored(model, x, y, size, stride, fill):
    base = model(x)[0, y]
    return _map(x, size, stride, fill, lambda z: base - model(z)[0, y], fresh=False)


@wrong("occlusion_map", "Rows and columns")
def transposed(model, x, y, size, stride, fill):
    base = model(x)[0, y]
    return _map(x, size, stride, fill, lambda z: base - model(z)[0, y]).T


@wrong("occlusion_map", "filled with 0")
def black_window(model, x, y, size, stride, fill):
    base = model(x)[0, y]
    return _map(x, size, stride, 0, lambda z: base - model(z)[0, y])


@right("to_pixels")
def by_fold(heat, size, stride, height, width):
    def spread(values):
        grid = ((heat.shape[0] - 1) * stride + size, (heat.shape[1] - 1) * stride + size)
        columns = values.reshape(1, 1, -1).repeat(1, size * size, 1)
        folded = F.fold(columns, grid, size, stride=stride)[0, 0]
        return F.pad(folded, (0, width - grid[1], 0, height - grid[0]))

    return spread(heat) / spread(torch.ones_like(heat)).clamp(min=1)


@right("to_pixels")
def asking_each_pixel(heat, size, stride, height, width):
    out = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            seen = [
                heat[i, j].item()
                for i in range(heat.shape[0])
                for j in range(heat.shape[1])
                if i * stride <= y < i * stride + size and j * stride <= x < j * stride + size
            ]
            out[y, x] = sum(seen) / len(seen) if seen else 0
    return out


def _sum_and_count(heat, size, stride, height, width):
    total, count = torch.zeros(height, width), torch.zeros(height, width)
    for i in range(heat.shape[0]):
        for j in range(heat.shape[1]):
            total[i * stride : i * stride + size, j * stride : j * stride + size] += heat[i, j]
            count[i * stride : i * stride + size, j * stride : j * stride + size] += 1
    return total, count


@wrong("to_pixels", "added the windows up")
def sum_for_mean(heat, size, stride, height, width):
    return _sum_and_count(heat, size, stride, height, width)[0]


@wrong("to_pixels", "nan")
def nan_where_uncovered(heat, size, stride, height, width):
    total, count = _sum_and_count(heat, size, stride, height + 1, width + 1)
    return (total / count)[:height, :width] + total[-1, -1] / count[-1, -1]


@wrong("to_pixels", "last one won")
def last_window_wins(heat, size, stride, height, width):
    out = torch.zeros(height, width)
    for i in range(heat.shape[0]):
        for j in range(heat.shape[1]):
            out[i * stride : i * stride + size, j * stride : j * stride + size] = heat[i, j]
    return out


@wrong("to_pixels", "stretched")
def interpolated(heat, size, stride, height, width):
    return F.interpolate(heat[None, None], size=(height, width))[0, 0]


@right("deletion_curve")
def all_stages_in_one_batch(model, x, y, order, fill):
    stages = x.repeat(len(order) + 1, 1, 1, 1).flatten(2)
    for n in range(1, len(order) + 1):
        stages[n, :, order[:n]] = fill
    with torch.no_grad():
        return model(stages.view(-1, *x.shape[1:]))[:, y]


@right("deletion_curve")
def list_of_numbers(model, x, y, order, fill):
    z = x.clone()
    flat = z.view(1, 3, -1)
    scores = [model(z)[0, y].item()]
    for p in order:
        flat[:, :, p] = fill
        scores.append(model(z)[0, y].item())
    return scores


def _deletion(model, x, y, order, fill, read=lambda logits: logits, fresh=False):
    z, scores = x.clone(), []
    with torch.no_grad():
        scores.append(read(model(z))[0, y])
        for p in order.tolist():
            z = x.clone() if fresh else z
            z[:, :, p // x.shape[3], p % x.shape[3]] = fill
            scores.append(read(model(z))[0, y])
    return torch.stack(scores)


@wrong("deletion_curve", "missing at the beginning")
def beginning_missing(model, x, y, order, fill):
    return _deletion(model, x, y, order, fill)[1:]


@wrong("deletion_curve", "stay deleted")
def each_pixel_alone(model, x, y, order, fill):
    return _deletion(model, x, y, order, fill, fresh=True)


@wrong("deletion_curve", "backwards")
def least_important_first(model, x, y, order, fill):
    return _deletion(model, x, y, order.flip(0), fill)


@wrong("deletion_curve", "probability")
def curve_of_the_probability(model, x, y, order, fill):
    return _deletion(model, x, y, order, fill, read=lambda logits: logits.softmax(1))


@wrong("deletion_curve", "in place")
def deletes_in_the_picture_itself(model, x, y, order, fill):
    scores = [model(x)[0, y].item()]
    for p in order.tolist():
        x[:, :, p // x.shape[3], p % x.shape[3]] = fill
        scores.append(model(x)[0, y].item())
    return scores


@wrong("occlusion_map", "shape")
def windows_over_the_border(model, x, y, size, stride, fill):
    base, rows = model(x)[0, y], []
    for top in range(0, x.shape[2], stride):
        row = []
        for left in range(0, x.shape[3], stride):
            z = x.clone()
            z[:, :, top : top + size, left : left + size] = fill
            row.append((base - model(z)[0, y]).item())
        rows.append(row)
    return torch.tensor(rows)


@wrong("occlusion_map", "shape")
def steps_of_one_window(model, x, y, size, stride, fill):
    base = model(x)[0, y]
    return _map(x, size, size, fill, lambda z: base - model(z)[0, y])


@wrong("occlusion_map", "log-probability")
def drop_of_the_log_probability(model, x, y, size, stride, fill):
    base = model(x).log_softmax(1)[0, y]
    return _map(x, size, stride, fill, lambda z: base - model(z).log_softmax(1)[0, y])


@wrong("occlusion_map", "strongest class")
def drop_of_the_winner(model, x, y, size, stride, fill):
    y = model(x).argmax()
    base = model(x)[0, y]
    return _map(x, size, stride, fill, lambda z: base - model(z)[0, y])
