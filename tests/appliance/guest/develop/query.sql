-- Few rows of many places, a range of one index, and rows that are strewn over the whole table.
select c.city, count(*), sum(o.cents) from customers c join orders o on o.customer = c.id
where c.id in (17, 4711, 8150, 12345, 19999, 3, 777, 10101, 15015, 6060) group by c.city order by c.city;
select day, count(*), max(cents) from orders where day between 700 and 760 group by day order by day;
select sum(length(remark)), min(remark), max(remark) from orders where id % 97 = 5 and id between 150000 and 260000;
select c.name, sum(o.cents) as total from orders o join customers c on c.id = o.customer
where o.day = 1234 group by c.id order by total desc, c.name limit 20;
