def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def of_class(table, labels):
    return table[np.arange(len(labels)), labels]


def ce(logits, labels):
    return -of_class(log_softmax(logits), labels)


def kl(student, target, tau=1.0):
    """Student first, target second, as in the papers' table: sum_c b_c (log b_c - log a_c)."""
    a, b = log_softmax(student / tau), log_softmax(target / tau)
    return (np.exp(b) * (b - a)).sum(1)


# Each outer formula gives the parts [B] without and with a divergence over the classes.


def natural(z, y):
    return ce(z.clean, y), 0


def sat(z, y):
    return ce(z.adversarial, y), 0


def trades(z, y, beta=6.0):
    return ce(z.clean, y), beta * kl(z.adversarial, z.clean)


def mart(z, y, beta=5.0):
    p, p_adv = softmax(z.clean), softmax(z.adversarial)
    others = p_adv.copy()
    others[np.arange(len(y)), y] = -1.0
    bce = -np.log(of_class(p_adv, y)) - np.log(1.0001 - others.max(1))
    return bce, beta * kl(z.adversarial, z.clean) * (1.0000001 - of_class(p, y))


def ard(z, y, alpha=1.0, tau=30.0):
    return (1 - alpha) * ce(z.clean / tau, y), alpha * tau**2 * kl(z.adversarial, z.teacher, tau)


def iad(z, y, beta=0.1, tau=1.0):
    trust = of_class(softmax(z.teacher_adversarial), y) ** beta
    return 0, trust * kl(z.adversarial, z.teacher, tau) + (1 - trust) * kl(z.adversarial, z.clean, tau)


def rslad(z, y, alpha=5 / 6):
    return 0, (1 - alpha) * kl(z.clean, z.teacher) + alpha * kl(z.adversarial, z.teacher)


INNER = {
    "sat": lambda logits, z, y: ce(logits, y),
    "trades": lambda logits, z, y: kl(logits, z.reference),
    "mart": lambda logits, z, y: ce(logits, y),
    "ard": lambda logits, z, y: ce(logits, y),
    "iad": lambda logits, z, y: ce(logits, y),
    "rslad": lambda logits, z, y: kl(logits, z.teacher),
    "gacd": lambda logits, z, y: ce(logits, y),
}


def unit(v):
    return v / np.sqrt((v**2).sum(-1, keepdims=True))


def nce(scores, z, samples):
    """scores [B,1+K], the positive first; noise 1/samples; the eps of CRD's code in both denominators."""
    p = np.exp(scores) / z
    noise = (scores.shape[1] - 1) / samples
    positive, negative = p[:, 0], p[:, 1:]
    return -np.log(positive / (positive + noise + 1e-7)) - np.log(noise / (negative + noise + 1e-7)).sum(1)
